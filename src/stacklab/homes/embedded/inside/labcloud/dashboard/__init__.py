"""Horizon: settings, the WSGI application, and the collecting of its static files."""
