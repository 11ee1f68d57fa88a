"""What Stampman is measured against: apps, and a loop of Anymail's."""
