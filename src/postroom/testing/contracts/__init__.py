"""The conformance kit: one test class a contract."""
