"""Where hooks, triggers, events, deliveries and attempts are kept."""
