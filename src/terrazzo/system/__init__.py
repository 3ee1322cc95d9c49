"""What every part may use: files written atomically, devices, the process group, palettes and painting."""
