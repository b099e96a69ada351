"""What integer semantics do: comparisons over whole ranges of inputs."""
