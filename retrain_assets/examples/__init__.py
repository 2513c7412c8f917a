"""Examples that ship with the package: real data sources, and the demo that runs them."""
