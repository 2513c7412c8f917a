from retrain_assets.orchestration.build import build_definitions

defs = build_definitions("model_specs")
