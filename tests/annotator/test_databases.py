"""A database's URL becomes Django's settings of it."""

import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler

from annotator.databases import POSTGRESQL, DatabaseUrlError, configured

POSTGRES = "postgres://me:secret@there/foresight"
HERE = settings.DATABASES["default"]


@pytest.mark.parametrize(
    ("url", "threshold"),
    [(POSTGRES, 4), (f"{POSTGRES}?prepare_threshold=9", 9), (f"{POSTGRES}?prepare_threshold=none", None)],
)
def test_postgresql_keeps_plans_unless_a_pooler_must_not(url, threshold):
    database = configured(url)
    assert (database["ENGINE"], database["HOST"], database["NAME"]) == (POSTGRESQL, "there", "foresight")
    assert database["OPTIONS"]["prepare_threshold"] == threshold
    assert database["OPTIONS"]["connect_timeout"] == 5


@pytest.mark.parametrize(
    "url", ["mysql://me:secret@there/foresight", "postgres://me:secret@there/", "postgres://[secret"]
)
def test_what_is_no_such_url_is_said_without_its_password(url):
    with pytest.raises(DatabaseUrlError, match="A database's URL is sqlite:///PATH or postgres://") as told:
        configured(url)
    assert "secret" not in str(told.value)


@pytest.mark.skipif(HERE["ENGINE"] != POSTGRESQL, reason="What a server keeps is PostgreSQL's.")
@pytest.mark.parametrize(("threshold", "kept"), [(4, True), (None, False)])
def test_the_server_keeps_the_plan_of_a_statement_that_comes_again(db, threshold, kept):
    options = HERE["OPTIONS"] | {"prepare_threshold": threshold}
    connection = ConnectionHandler({"default": HERE | {"OPTIONS": options}})["default"]
    try:
        with connection.cursor() as cursor:
            for number in range(8):
                cursor.execute("SELECT %s::int + 1", [number])
            cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%int + 1%%'")
            assert bool(cursor.fetchone()[0]) is kept
    finally:
        connection.close()
