"""The pages and figures that people look at: each one HTML file that needs no network."""
