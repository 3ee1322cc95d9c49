"""terrazzo's models inside other programs."""
