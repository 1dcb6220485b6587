-- AlterTable
ALTER TABLE "Order" ALTER COLUMN "status" SET DEFAULT 'OPEN';
