"""What the intake is compared with: Flask as it comes, one view, one committed row through SQLAlchemy."""

import os

from flask import Flask, request
from sqlalchemy import Column, MetaData, Table, Text, create_engine
from werkzeug.wrappers import Response

app = Flask(__name__)
_engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1), pool_size=20)
_mails = Table("bench_mails", MetaData(), Column("email", Text))


@app.post("/api/v1/customers")
def store() -> Response:
    with _engine.begin() as db:
        db.execute(_mails.insert().values(email=request.get_json()["email"]))
    return Response(b'{"stored":true}', 202, content_type="application/json")
