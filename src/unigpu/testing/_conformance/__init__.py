"""What a driver must do, as tests."""
