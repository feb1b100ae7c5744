"""The command line: one module a verb or family of verbs, each with `register` and functions that run.

Receives argv; hands on calls to the stages and prints what they answer.  No stage may know it is called from here.
"""
