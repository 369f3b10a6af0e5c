"""A bundle on two machines: a client that sends frames, and a server that resumes them.

* protocol: the messages between them.
* server: frontends for gRPC and HTTP, above a service with queue and limits that runs the bundles.
* client: sessions, which retry, choose the cut for the link, and go on without the server.
"""
