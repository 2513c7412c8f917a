"""The one view over all models: status rows and how they are shown. Knows no orchestrator."""
