"""The server's side as a service: frontends, queue, memory budgets, sessions, metrics."""
