"""What is derived from the messages: JSON Schemas, the AsyncAPI document, an example of each."""
