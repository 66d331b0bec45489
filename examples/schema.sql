-- The tables of the examples.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL, quantity int NOT NULL DEFAULT 1);
CREATE TABLE audit (id serial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), note text NOT NULL);

CREATE TABLE account (name text PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
CREATE TABLE handled (message text PRIMARY KEY);

CREATE TABLE document (id serial PRIMARY KEY, content text NOT NULL, embedding vector(1536) NOT NULL);
CREATE INDEX ON document USING hnsw (embedding vector_l2_ops);
