"""From a JSON preset to a frozen dataclass: the only place where a preset is judged."""
