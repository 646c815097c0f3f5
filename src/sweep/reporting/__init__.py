"""Tables turned into figures and pages."""
