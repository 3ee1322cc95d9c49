"""The ground floor: atomic files, devices, processes, palettes and painting."""
