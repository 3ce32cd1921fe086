"""Runs of ``POST /runs`` that several servers share through a Redis or Valkey: any of them reads and stops each."""
