"""What `codegeex bench` measures: the round trip of an editor, against what people use today."""
