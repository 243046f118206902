"""Will a file run on a device, and what of it on its accelerator: rules as data, tools where they can answer."""
