"""The time series: load, decisions, volumes and room over time, written every minute."""
