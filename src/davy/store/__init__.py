"""Where bytes live: the database, blobs, the journal, tables and the write-ahead log. It knows no word of machine learning."""
