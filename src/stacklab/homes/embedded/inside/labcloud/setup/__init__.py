"""First initialisation, one module a service: schema and the content that every new cloud has."""
