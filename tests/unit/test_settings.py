"""Settings: what follows from the home folder, and errors that name the variable."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from retrain_assets.errors import SettingsError
from retrain_assets.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("RETRAIN_"):
            monkeypatch.delenv(name)


def test_without_any_variable_everything_lives_in_one_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.load()
    home = tmp_path / ".retrain"
    assert settings.home == home
    assert settings.dagster_home == home / "dagster"
    assert settings.storage == str(home / "storage")
    assert settings.mlflow_uri == f"sqlite:///{home}/mlflow.db"
    assert settings.mlflow_artifacts == str(home / "mlartifacts")
    assert settings.ledger_url == f"sqlite:///{home}/ledger.db"
    assert settings.executor == "in_process"
    assert settings.automation is True
    assert not home.exists()


def test_the_home_folder_moves_everything_without_an_address_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_HOME", str(tmp_path))
    monkeypatch.setenv("RETRAIN_STORAGE", "s3://bucket/retrain")
    settings = Settings.load()
    assert settings.storage == "s3://bucket/retrain"
    assert settings.ledger_url == f"sqlite:///{tmp_path}/ledger.db"


def test_a_home_in_the_user_s_folder_is_expanded(monkeypatch):
    assert Settings.load(home="~/models").home == Path.home() / "models"


def test_paths_do_not_move_when_the_process_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(home="work")
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / "work"
    assert settings.ledger_url == f"sqlite:///{tmp_path}/work/ledger.db"


@pytest.mark.parametrize("uri", ["http://mlflow:5000", "https://mlflow.example.org"])
def test_an_mlflow_server_stores_its_artifacts_itself(uri):
    assert Settings.load(mlflow_uri=uri).mlflow_artifacts == ""
    assert Settings.load(mlflow_uri=uri, mlflow_artifacts="s3://a").mlflow_artifacts == "s3://a"


def test_an_mlflow_database_stores_artifacts_in_the_home_folder(tmp_path):
    settings = Settings.load(home=tmp_path, mlflow_uri="postgresql+psycopg2://h/mlflow")
    assert settings.mlflow_artifacts == str(tmp_path / "mlartifacts")


def test_every_setting_is_read_from_its_variable(tmp_path, monkeypatch):
    values = {
        "home": str(tmp_path), "storage": "s3://s", "mlflow_uri": "http://m",
        "mlflow_artifacts": "s3://m", "ledger_url": "postgresql+psycopg2://l", "executor": "k8s",
        "sensor_interval_seconds": "30", "automation": "false", "dagster_url": "https://d",
        "parallel_runs": "2", "batch_size": "3", "suspect_models": "4", "suspect_share": "0.25",
        "suspect_window": "2h", "suspect_hold": "3d", "models": "churn,sales", "mlflow_url": "https://l",
    }  # fmt: skip
    assert set(values) == set(Settings.model_fields)
    for name, value in values.items():
        monkeypatch.setenv(f"RETRAIN_{name.upper()}", value)
    settings = Settings.load()
    read = {name: getattr(settings, name) for name in values}
    assert read == values | {
        "home": tmp_path, "sensor_interval_seconds": 30, "automation": False, "parallel_runs": 2,
        "batch_size": 3, "suspect_models": 4, "suspect_share": 0.25,
        "suspect_window": timedelta(hours=2), "suspect_hold": timedelta(days=3),
        "models": ("churn", "sales"),
    }  # fmt: skip


def test_an_argument_overrules_the_environment(monkeypatch):
    monkeypatch.setenv("RETRAIN_EXECUTOR", "k8s")
    assert Settings.load(executor="multiprocess").executor == "multiprocess"


def test_an_empty_variable_is_the_same_as_none(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.setenv(f"RETRAIN_{name.upper()}", "")
    emptied = Settings.load()
    for name in Settings.model_fields:
        monkeypatch.delenv(f"RETRAIN_{name.upper()}")
    assert emptied == Settings.load()
    assert emptied.home == tmp_path / ".retrain"


def test_alert_targets_and_other_variables_are_not_settings(monkeypatch):
    monkeypatch.setenv("RETRAIN_ALERT_OPS", "json://localhost")
    monkeypatch.setenv("EXECUTOR", "k8s")
    assert Settings.load().executor == "in_process"


def test_all_unusable_variables_are_named_with_rule_and_value(monkeypatch):
    monkeypatch.setenv("RETRAIN_EXECUTOR", "threads")
    monkeypatch.setenv("RETRAIN_SENSOR_INTERVAL_SECONDS", "0")
    monkeypatch.setenv("RETRAIN_AUTOMATION", "perhaps")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value) == (
        "unusable settings:\n"
        "  RETRAIN_EXECUTOR: Input should be 'in_process', 'multiprocess' or 'k8s', got 'threads'\n"
        "  RETRAIN_SENSOR_INTERVAL_SECONDS: Input should be greater than or equal to 1, got '0'\n"
        "  RETRAIN_AUTOMATION: Input should be a valid boolean, unable to interpret input, "
        "got 'perhaps'"
    )
    assert caught.value.__cause__ is None


def test_an_unusable_variable_does_not_show_the_addresses_of_the_others(monkeypatch):
    monkeypatch.setenv("RETRAIN_LEDGER_URL", "postgresql+psycopg2://u:hunter2@h/x")
    monkeypatch.setenv("RETRAIN_EXECUTOR", "threads")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


def test_settings_in_a_log_or_traceback_do_not_show_passwords():
    settings = Settings.load(
        storage="s3://key:hunter2@bucket", mlflow_uri="http://u:hunter2@m", mlflow_artifacts="s3://hunter2@b",
        ledger_url="postgresql+psycopg2://u:hunter2@h/x",
    )  # fmt: skip
    assert "hunter2" not in f"{settings!r} {settings}"
    assert "hunter2" in settings.ledger_url


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().executor = "k8s"


@pytest.mark.parametrize(
    ("text", "models"), [("", ()), ("churn", ("churn",)), (" churn, sales ,", ("churn", "sales"))]
)
def test_models_are_named_between_commas(monkeypatch, text, models):
    monkeypatch.setenv("RETRAIN_MODELS", text)
    assert Settings.load().models == models


@pytest.mark.parametrize(
    ("given", "link"),
    [({"mlflow_uri": "https://anna:hunter2@mlflow:5000/x"}, "https://mlflow:5000/x"),
     ({"mlflow_uri": "postgresql+psycopg2://u:hunter2@h/x"}, ""),
     ({}, ""),
     ({"mlflow_uri": "http://inside:5000", "mlflow_url": "https://mlflow.example"},
      "https://mlflow.example")],
)  # fmt: skip
def test_links_to_mlflow_show_no_password(tmp_path, given, link):
    assert Settings.load(home=tmp_path, **given).mlflow_url == link
