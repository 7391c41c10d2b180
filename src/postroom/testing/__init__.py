"""What tests of Postroom, and of applications on it, are made with."""
