"""What the commands of `lookhear` do, once `lookhear_command` has read their arguments."""
