"""What PostgreSQL has, of all that SQLAlchemy's suite can ask for: it tests nothing else."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

_HAS = """
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
_HAS_SINCE_SQLALCHEMY_2_1 = "reflect_table_options computed_columns_virtual"


class Requirements(SuiteRequirements):
    """PostgreSQL 18 over psycopg."""

    def get_isolation_levels(self, _config: Any) -> dict[str, Any]:
        """By their names in SQL."""
        levels = ["AUTOCOMMIT", "READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
        return {"default": "READ COMMITTED", "supported": levels}

    def get_order_by_collation(self, _config: Any) -> str:
        """One that every PostgreSQL has."""
        return "POSIX"


if not sqlalchemy.__version__.startswith("2.0."):
    _HAS += _HAS_SINCE_SQLALCHEMY_2_1
for _name in _HAS.split():
    setattr(Requirements, _name, exclusions.open())  # type: ignore[no-untyped-call]
