DROP TABLE alarms; ALTER TABLE "Devices" DROP COLUMN last_alarm;
