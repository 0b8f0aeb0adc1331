"""The only home of bcc, ctypes and netlink: everything that speaks to the kernel."""
