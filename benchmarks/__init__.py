"""Speed beside other libraries: one module per question, peers measured in the same run, and records of the answers.

A question's module has `arguments(parser)`, which adds its options, and `measure(options)`, which yields a
`records.Result` as soon as it is known. `registry` asks the questions.
"""
