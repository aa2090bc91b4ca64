"""Diffusion policies that answer in time: exact, fast sampling for robot learning."""
