"""What PostgreSQL and MariaDB have, of all that SQLAlchemy's suite can test."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

_POSTGRESQL_HAS = """
    create_table_as create_temp_table_as table_ddl_if_exists index_ddl_if_exists
    temporary_views create_or_replace_view views materialized_views schema_create_delete
    unicode_ddl percent_schema_names implicit_default_schema default_schema_name_switch
    deferrable_fks repeated_column_foreign_keys server_defaults expression_server_defaults
    computed_columns computed_columns_stored
    identity_columns identity_columns_standard

    reflects_pk_names reflect_tables_no_columns
    unique_constraints_reflect_as_index cross_schema_fk_reflection
    foreign_key_constraint_name_reflection
    foreign_key_constraint_option_reflection_ondelete fk_constraint_option_reflection_ondelete_restrict
    foreign_key_constraint_option_reflection_onupdate fk_constraint_option_reflection_onupdate_restrict
    inline_check_constraint_reflection check_constraint_reflection constraint_comment_reflection
    comment_reflection comment_reflection_full_unicode temp_table_comment_reflection
    column_collation_reflection computed_columns_reflect_persisted
    temp_table_names has_temp_table
    index_reflects_included_columns indexes_with_expressions reflect_indexes_with_expressions
    indexes_check_column_order

    boolean_col_expressions nullsordering intersect except_ table_value_constructor tuple_in
    window_functions window_range window_range_numeric window_range_non_numeric
    ctes ctes_with_update_delete ctes_with_values ctes_on_dml update_from delete_from
    supports_distinct_on aggregate_order_by order_by_label_with_expression
    fetch_first fetch_ties fetch_no_order_by fetch_offset_with_options fetch_expression
    regexp_match regexp_replace mod_operator_as_percent_sign
    supports_bitwise_or supports_bitwise_and supports_bitwise_not supports_bitwise_xor
    supports_bitwise_shift

    uuid_data_type array_type json_type legacy_unconditional_json_extract json_deserializer_binary
    datetime_interval datetime_literals datetime_timezone time_timezone timestamp_microseconds
    datetime_historic datetime_timezone_historic date_historic
    precision_numerics_enotation_small precision_numerics_many_significant_digits
    cast_precision_numerics_many_significant_digits precision_numerics_retains_significant_digits
    infinity_floats float_or_double_precision_behaves_generically

    autocommit skip_autocommit_rollback isolation_level dialect_level_isolation_level_param
    savepoints two_phase_transactions
"""
_MARIADB_HAS = """
    create_table_as create_temp_table_as table_ddl_if_exists create_or_replace_view views
    schema_create_delete unicode_ddl percent_schema_names server_defaults expression_server_defaults
    computed_columns computed_columns_stored

    view_reflection view_column_reflection cross_schema_fk_reflection check_constraint_reflection
    unique_constraints_reflect_as_index unique_index_reflect_as_unique_constraints
    foreign_keys_reflect_as_index foreign_key_constraint_name_reflection
    foreign_key_constraint_option_reflection_ondelete
    foreign_key_constraint_option_reflection_onupdate
    fk_constraint_option_reflection_ondelete_noaction
    comment_reflection temp_table_comment_reflection
    computed_columns_reflect_persisted has_temp_table indexes_check_column_order

    boolean_col_expressions intersect except_ tuple_in tuple_in_w_empty aggregate_order_by
    window_functions window_range window_range_numeric ctes ctes_with_values update_from
    order_by_label_with_expression fetch_offset_with_options fetch_expression
    regexp_match regexp_replace mod_operator_as_percent_sign
    supports_bitwise_or supports_bitwise_and supports_bitwise_xor supports_bitwise_shift

    json_type json_array_indexes legacy_unconditional_json_extract nvarchar_types
    datetime_literals datetime_historic date_historic
    precision_numerics_enotation_small precision_numerics_many_significant_digits
    precision_numerics_retains_significant_digits

    dbapi_lastrowid emulated_lastrowid emulated_lastrowid_even_with_sequences
    autocommit skip_autocommit_rollback isolation_level savepoints two_phase_transactions
"""
# The suite takes these for granted.
_MARIADB_HAS_NOT = """
    date_implicit_bound datetime_implicit_bound time_implicit_bound
    datetime_microseconds time_microseconds precision_generic_float_type
    json_index_supplementary_unicode_element sql_expression_limit_offset unbounded_varchar
"""
_HAS_SINCE_SQLALCHEMY_2_1 = "reflect_table_options computed_columns_virtual"
_MARIADB = ["mysql", "mariadb"]  # SQLAlchemy calls the dialect so or so, by what the server says


class Requirements(SuiteRequirements):
    """PostgreSQL 18 over psycopg and the Data API, MariaDB 10.11 over PyMySQL."""

    def get_isolation_levels(self, config: Any) -> dict[str, Any]:
        """By their names in SQL."""
        default = "REPEATABLE READ" if config.db.name in _MARIADB else "READ COMMITTED"
        return {"default": default, "supported": config.db.dialect.get_isolation_level_values(None)}

    def get_order_by_collation(self, config: Any) -> str:
        """One that every server has."""
        return "utf8mb4_bin" if config.db.name in _MARIADB else "POSIX"


if not sqlalchemy.__version__.startswith("2.0."):
    _POSTGRESQL_HAS += _HAS_SINCE_SQLALCHEMY_2_1
    _MARIADB_HAS += _HAS_SINCE_SQLALCHEMY_2_1
_HAVE = {"postgresql": _POSTGRESQL_HAS.split(), **dict.fromkeys(_MARIADB, _MARIADB_HAS.split())}
for _name in {name for names in _HAVE.values() for name in names}:
    _rule = exclusions.only_on([database for database, names in _HAVE.items() if _name in names])
    setattr(Requirements, _name, _rule)
for _name in _MARIADB_HAS_NOT.split():
    setattr(Requirements, _name, exclusions.skip_if(_MARIADB))
