"""Words: WordNet's nouns, attributes, what phrases are made of, and the rules by which a negative contradicts one."""
