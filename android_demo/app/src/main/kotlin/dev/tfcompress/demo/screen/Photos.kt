package dev.tfcompress.demo.screen

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import dev.tfcompress.demo.tensor.Picture
import java.io.IOException

/** Photos as pixels, upright, and small enough for every phone's memory. */
object Photos {
    private const val LARGEST = 2048

    /** @throws IOException where it is no picture. */
    fun read(resolver: ContentResolver, uri: Uri): Picture {
        val bitmap = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) {
            ImageDecoder.decodeBitmap(ImageDecoder.createSource(resolver, uri)) { decoder, info, _ ->
                decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
                decoder.setTargetSampleSize(maxOf(1, maxOf(info.size.width, info.size.height) / LARGEST))
            }
        } else {
            old(resolver, uri)
        }
        return picture(bitmap)
    }

    fun picture(bitmap: Bitmap): Picture {
        val pixels = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        return Picture(bitmap.width, bitmap.height, pixels)
    }

    fun bitmap(picture: Picture): Bitmap =
        Bitmap.createBitmap(picture.pixels, picture.width, picture.height, Bitmap.Config.ARGB_8888)

    /** Before Android 9, which turns photos upright by itself. */
    private fun old(resolver: ContentResolver, uri: Uri): Bitmap {
        fun open() = resolver.openInputStream(uri) ?: throw IOException("the picture cannot be read")
        val size = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        open().use { BitmapFactory.decodeStream(it, null, size) }
        val options = BitmapFactory.Options().apply { inSampleSize = maxOf(1, maxOf(size.outWidth, size.outHeight) / LARGEST) }
        val bitmap = open().use { BitmapFactory.decodeStream(it, null, options) } ?: throw IOException("this is no picture")
        val degrees = when (open().use { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, 0) }) {
            ExifInterface.ORIENTATION_ROTATE_90 -> 90f
            ExifInterface.ORIENTATION_ROTATE_180 -> 180f
            ExifInterface.ORIENTATION_ROTATE_270 -> 270f
            else -> return bitmap
        }
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, Matrix().apply { postRotate(degrees) }, true)
    }
}
