"""One module a service: `main()` loads it and serves until it is ended; `forget()` drops what it remembers."""
