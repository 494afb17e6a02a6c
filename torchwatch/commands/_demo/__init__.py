"""What `torchwatch demo` trains, and the mistakes that it plants."""
