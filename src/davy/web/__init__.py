"""The pages: each answers one question, is rendered on the server, and needs neither the network nor scripts to be read."""
