"""How data comes in: HTTP in `client`, the database in `bar_store` and `metric_store`, arithmetic
in `metrics` and `request_plan`."""
