DROP FUNCTION moved_amount;
DROP TABLE movements, stock;
