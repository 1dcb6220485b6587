-- AlterEnum
-- This migration adds more than one value to an enum.
-- With PostgreSQL versions 11 and earlier, this is not possible
-- in a single migration. This can be worked around by creating
-- multiple migrations, each migration adding only one value to
-- the enum.


ALTER TYPE "order_status" ADD VALUE 'REFUNDED';
ALTER TYPE "order_status" ADD VALUE 'OPEN';

-- AlterTable
ALTER TABLE "products" ADD COLUMN     "discount" REAL NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "Coupon" (
    "code" VARCHAR(40) NOT NULL,
    "percent" DECIMAL(5,2) NOT NULL,
    "starts" TIMESTAMPTZ(6),

    CONSTRAINT "Coupon_pkey" PRIMARY KEY ("code")
);

-- CreateTable
CREATE TABLE "_CouponToOrder" (
    "A" VARCHAR(40) NOT NULL,
    "B" UUID NOT NULL,

    CONSTRAINT "_CouponToOrder_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateIndex
CREATE INDEX "_CouponToOrder_B_index" ON "_CouponToOrder"("B");

-- AddForeignKey
ALTER TABLE "_CouponToOrder" ADD CONSTRAINT "_CouponToOrder_A_fkey" FOREIGN KEY ("A") REFERENCES "Coupon"("code") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_CouponToOrder" ADD CONSTRAINT "_CouponToOrder_B_fkey" FOREIGN KEY ("B") REFERENCES "Order"("id") ON DELETE CASCADE ON UPDATE CASCADE;
