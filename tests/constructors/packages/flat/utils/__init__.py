"""What every project has."""
