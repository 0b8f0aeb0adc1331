"""Pure bytes: parsers and builders without IO, clock or bcc, shared by all processes."""
