"""A bundle between two machines: the server that resumes frames, and the client that sends them.

server: server.py assembles -> grpc_server.py, http_server.py (two doors) -> service.py (queue, limits) -> served.py
client: client.py -> transport.py (gRPC, HTTP), breaker.py, chooser.py
"""
