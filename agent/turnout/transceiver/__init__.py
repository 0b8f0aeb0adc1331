"""The transceiver: a process of its own that terminates WebRTC sessions on one lane."""
