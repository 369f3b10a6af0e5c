"""The client of a server: sessions of a device whose server segments run on another machine."""
