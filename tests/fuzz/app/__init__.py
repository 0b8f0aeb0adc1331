"""What the fuzzing of the transceiver and of the doors is made of; see transceiver.py, doors.py."""
