"""The bus on a NATS server with JetStream."""
