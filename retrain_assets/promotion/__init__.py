"""Promotion: who may become champion (gate), who is (ledger), and what is stored (registry).

Belongs here: the paired comparison of a candidate with the champion (`gate`, pure), the append-only
record of promotions (`ledger`, SQL) and the store of model versions (`registry`, MLflow). Does not:
training and metrics (`training`), the decision to retrain (`policy`), the assets (`orchestration`).
Nothing is re-exported, so that importing the gate costs neither SQLAlchemy nor MLflow.
"""
